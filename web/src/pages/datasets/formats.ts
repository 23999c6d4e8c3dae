/** The formats of `GET /datasets/{id}/export`, as people know them. */
export const FORMATS = [
  { value: "coco", label: "COCO", hint: "instances JSON: boxes" },
  { value: "yolo", label: "YOLO", hint: "Ultralytics with data.yaml: boxes" },
  { value: "voc", label: "Pascal VOC", hint: "one XML a picture: boxes" },
  { value: "folders", label: "A folder per class", hint: "by the first tag" },
  { value: "huggingface", label: "Hugging Face imagefolder", hint: "with metadata.jsonl" },
  { value: "parquet", label: "Parquet", hint: "pictures inside; opens in Hugging Face datasets" },
  { value: "viam", label: "Viam", hint: "dataset.jsonl" },
];
