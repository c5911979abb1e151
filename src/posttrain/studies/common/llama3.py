"""Numbers of Llama 3's paper that several studies use."""

#: Average tokens of its preference data (Table 6): an example has 1,041.6, of them 284.0 in the
#: response; the rest is what all responses share.
LLAMA3_RESPONSE_TOKENS = 284.0
LLAMA3_PROMPT_TOKENS = 1041.6 - LLAMA3_RESPONSE_TOKENS
