"""What the developer of this provider runs: a real Airflow on this machine, the demo, the benchmarks. Not shipped."""
