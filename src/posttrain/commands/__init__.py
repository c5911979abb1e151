"""What ``posttrain train``, ``score`` and the other commands do, a module for each."""
