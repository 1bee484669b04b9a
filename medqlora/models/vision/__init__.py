"""Vision-language bases: which parts they have, how they take images, and how they are run."""
