"""What studies share: what a study is, groups, training runs, heads, settings, tables, cost."""
