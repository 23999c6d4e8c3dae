import { labelColor as byName } from "../format";

/** What reports and pages call a picture that no label fits. */
export const NONE_OF_THESE = "none of these";

/** One colour per label, the same on every page; no colour for the absence of one. */
export const labelColor = (label: string): string => (label === NONE_OF_THESE ? "var(--muted)" : byName(label));
