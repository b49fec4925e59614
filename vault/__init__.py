"""What is protected: sites, policies, mappings, machines, and the words every other package shares."""
