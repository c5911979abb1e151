"""What a finished run of posttrain train bought."""
