"""Where ranked groups come from: the simulator, and converters of public originals."""
