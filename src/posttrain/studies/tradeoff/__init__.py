"""Helpfulness and safety: two reward models or one."""
