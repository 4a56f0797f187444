"""Operators of the pipeline, as pipeline.yaml refers to them."""

from meeting.denoise import Denoise
from meeting.keywords import keywords
from meeting.speech_to_text import SpeechToText
from meeting.voice_activity import VoiceActivity

__all__ = ["Denoise", "SpeechToText", "VoiceActivity", "keywords"]
