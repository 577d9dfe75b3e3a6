"""How the stages of a corpus run: over shards, and over what shards send one another by key.

flow.py    stages in folders that are named by what decides their content
task.py    one task: its result is written, then its mark, so that nothing is done twice
local.py   worker processes of this machine
beam.py    Apache Beam: Dataflow, Flink, Spark
"""
