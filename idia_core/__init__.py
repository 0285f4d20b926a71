"""The science of idia: one file a subject, no ray, torch only inside loaders."""
