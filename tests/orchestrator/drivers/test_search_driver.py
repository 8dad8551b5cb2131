"""A search over real jobs of seconds: same answers, same sequence, whatever was lost or killed."""
