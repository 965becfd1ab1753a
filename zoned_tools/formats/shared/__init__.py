"""The floor that the layouts stand on: rules and findings, settings, zone facts, documents, the mappers' base."""
