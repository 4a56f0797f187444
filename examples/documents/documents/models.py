"""Models of this example, with their package, authors, licence and SHA-256."""

from __future__ import annotations

from documents.model_files import Model, ModelFile

DETECTOR = Model(
    name="PP-OCRv6 small, detection",
    description="detects text regions on a page",
    licence="Apache-2.0",
    origin="Baidu, PaddleOCR; converted to ONNX by RapidOCR",
    package="rapidocr",
    version="3.10.0",
    files=(
        ModelFile(
            "rapidocr/models/PP-OCRv6_det_small.onnx",
            "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        ),
    ),
)

CLASSIFIER = Model(
    name="PP-OCR mobile v2.0, angle",
    description="detects text that is upside down",
    licence="Apache-2.0",
    origin="Baidu, PaddleOCR; converted to ONNX by RapidOCR",
    package="rapidocr",
    version="3.10.0",
    files=(
        ModelFile(
            "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
            "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        ),
    ),
)

RECOGNIZER = Model(
    name="PP-OCRv6 small, recognition",
    description="recognises a text region",
    licence="Apache-2.0",
    origin="Baidu, PaddleOCR; converted to ONNX by RapidOCR",
    package="rapidocr",
    version="3.10.0",
    files=(
        ModelFile(
            "rapidocr/models/PP-OCRv6_rec_small.onnx",
            "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        ),
    ),
)

MODELS = (DETECTOR, CLASSIFIER, RECOGNIZER)
