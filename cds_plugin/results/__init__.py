"""An analysis becomes DICOM objects: SEG, structured report, overlay. It must never store or send them."""
