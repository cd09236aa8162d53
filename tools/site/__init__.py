"""The site that ``make docs`` builds from docs/: what mkdocs.yml hooks in, and reference pages made from the code."""
