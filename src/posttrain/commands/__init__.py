"""What ``posttrain train``, ``score`` and ``evaluate`` do; each module is one command."""
