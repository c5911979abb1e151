"""What the details of DPO, averaging policies, and filters of SFT data change."""
