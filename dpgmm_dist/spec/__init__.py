"""What a job asks for: the YAML specification, validated and frozen."""
