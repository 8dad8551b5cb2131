"""MLflow's tracking server or database: its address, whether it answers, where artifacts lie."""
