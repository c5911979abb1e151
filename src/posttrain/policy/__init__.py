"""From a reward model to a policy: sampling, selection, SFT, DPO, averaging, and rounds of them."""
