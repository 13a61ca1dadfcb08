"""The same lesion at an earlier visit, among what is known of the patient. It must never read a picture."""
