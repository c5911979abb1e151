"""What studies share: groups, training runs, heads, planning, cost."""
