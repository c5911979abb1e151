"""Whether how a reward model is trained changes what it chooses, not only its accuracy."""
