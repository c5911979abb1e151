"""Does training on all comparisons of a prompt at once learn as well as on shuffled pairs?"""
