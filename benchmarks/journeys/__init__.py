"""Material for the journeys of docs/journeys.md, made of the embedded sample."""
