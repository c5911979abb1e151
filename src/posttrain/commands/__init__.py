"""What ``posttrain train``, ``calibrate``, ``score`` and ``evaluate`` do, a module for each."""
