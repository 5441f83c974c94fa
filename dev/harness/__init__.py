"""A real Airflow and an emulator as processes on this machine, for tests, benchmarks, soak and demo."""
