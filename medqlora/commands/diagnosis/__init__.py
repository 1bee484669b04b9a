"""What `medqlora doctor` looks at: a file a subject; a check gives findings and never raises."""
