"""`darkroom score`: how good is a folder of pictures, question by question, and against another folder. There is no total."""

from darkroom.jobs.score.beside import PATTERNS, Move, patterns
from darkroom.jobs.score.run import FILES, Scored, Side, score
from darkroom.jobs.score.setup import Scoring, parse_models
from darkroom.jobs.score.text import catalogue_lines, lines

__all__ = ["FILES", "PATTERNS", "Move", "Scored", "Scoring", "Side", "catalogue_lines", "lines", "parse_models", "patterns", "score"]
