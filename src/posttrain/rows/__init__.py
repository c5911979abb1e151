"""From a group to what a model reads: token ids, layouts, packing, attention."""
