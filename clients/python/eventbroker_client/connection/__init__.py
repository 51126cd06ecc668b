"""How the broker is reached: its address, the channel, and calls that are made again until they are answered."""
