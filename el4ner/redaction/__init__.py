"""Taking detected names out of a text: in every form in which they stand in it, by consistent pseudonyms or masks."""
