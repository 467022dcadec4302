"""Does a variant still give what was exported? `golden` vectors tell, within a `tolerance`, without torch."""
