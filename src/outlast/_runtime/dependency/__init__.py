"""A dependency and what it is made of: its health, its prober, its guard, its incident."""
