"""Every object of a day read, checked, decoded and resized once, in worker processes; kept in shards that later runs continue from."""

from pipeline_project.ingest.decoding.day import DecodedDay, decode_day
from pipeline_project.ingest.decoding.recipe import DECODING_SETTINGS
from pipeline_project.ingest.decoding.shards import SHARD, ShardRef, shards_stand

__all__ = ["DECODING_SETTINGS", "SHARD", "DecodedDay", "ShardRef", "decode_day", "shards_stand"]
