"""Sources of the memory: papers, repositories, folders, files and finished campaigns, read into rows."""

from looper.memory.ingestion.autoresearch import Campaign, read_campaign
from looper.memory.ingestion.extraction import Extraction, Extractor, delimited, methods_from_yaml
from looper.memory.ingestion.targets import KNOWN, ingest

__all__ = [
    "KNOWN",
    "Campaign",
    "Extraction",
    "Extractor",
    "delimited",
    "ingest",
    "methods_from_yaml",
    "read_campaign",
]
