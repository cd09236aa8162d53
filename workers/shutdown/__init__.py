"""How a process of workers ends: within a bound, whatever hangs."""
