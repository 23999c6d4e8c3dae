/** Questions to begin with, and what there is to ask. */
export type Language = "sql" | "mql";

/** As `POST /queries` takes it. */
export interface Question {
  organization_id: string;
  language: Language;
  text: string;
  pipeline_id?: string;
}
export interface Example {
  title: string;
  language: Language;
  text: string;
}

export const EXAMPLES: Example[] = [
  { title: "The newest readings", language: "sql", text: "SELECT time_received, component_name, data\nFROM readings\nORDER BY time_received DESC\nLIMIT 100" },
  { title: "Readings an hour of each sensor", language: "sql", text: "SELECT date_trunc('hour', time_received) AS hour, component_name, count(*) AS readings\nFROM readings\nWHERE time_received > now() - INTERVAL 7 DAY\nGROUP BY ALL\nORDER BY hour" },
  { title: "Pictures a model was unsure of", language: "sql", text: "SELECT DISTINCT binary_data_id, label, confidence, time_requested\nFROM annotations\nWHERE confidence < 0.6 AND time_requested > now() - INTERVAL 12 HOUR\nORDER BY confidence" },
  { title: "Pictures a day and camera", language: "sql", text: "SELECT date_trunc('day', time_requested) AS day, component_name, count(*) AS pictures, sum(size_bytes) / 1e6 AS megabytes\nFROM items\nGROUP BY ALL\nORDER BY day" },
  { title: "Readings of each sensor", language: "mql", text: '[\n  { "$group": { "_id": "$component_name", "readings": { "$sum": 1 }, "last": { "$max": "$time_received" } } },\n  { "$sort": { "readings": -1 } }\n]' },
];

export const TABLES: { name: string; about: string; columns: string[] }[] = [
  { name: "readings", about: "What sensors said; a value inside is data.readings.celsius", columns: ["time_requested", "time_received", "robot_id", "part_id", "component_type", "component_name", "method_name", "tags", "data"] },
  { name: "items", about: "Pictures and files", columns: ["binary_data_id", "time_requested", "robot_id", "part_id", "component_name", "file_name", "size_bytes", "tags"] },
  { name: "annotations", about: "A row for each box and classification", columns: ["binary_data_id", "kind", "label", "confidence", "x_min", "y_min", "x_max", "y_max", "time_requested"] },
];
