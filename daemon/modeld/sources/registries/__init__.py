"""Registries of the OCI distribution protocol: any by `oci://`, Ollama's by `ollama:`."""
