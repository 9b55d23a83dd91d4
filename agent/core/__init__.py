"""The pure core: what should be, and what to do about it. No I/O, no clock, no asyncio."""
