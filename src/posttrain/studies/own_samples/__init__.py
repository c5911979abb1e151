"""A real policy chooses among its own samples, and learns from them."""
