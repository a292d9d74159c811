"""Models in registries of the OCI distribution protocol: in any by `oci://`, in Ollama's by `ollama:`."""
