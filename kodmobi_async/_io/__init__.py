"""The connections: the only modules on the client's side that import aiohttp."""
