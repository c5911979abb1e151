"""Where ranked groups come from: files, the hub, the simulator, and converted public originals."""
