"""The bundled benchmark: small buggy Python repositories, drawn by a deterministic generator."""
