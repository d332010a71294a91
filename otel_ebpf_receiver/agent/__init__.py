"""The agent put together; `agent.py` is the map. Only this floor knows which sources, destinations and identities there are."""
