"""Settings as typed dataclass fields, and YAML files of them."""
