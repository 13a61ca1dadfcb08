-- Routes dermoscopy to the plugin. Sending everything would do no harm: what is not analysed is acknowledged.
local analysed = {
   ['1.2.840.10008.5.1.4.1.1.77.1.7'] = true,  -- Dermoscopic Photography
   ['1.2.840.10008.5.1.4.1.1.77.1.4'] = true,  -- VL Photographic
}

function OnStoredInstance(instanceId, tags, metadata, origin)
   if analysed[tags['SOPClassUID']] then
      SendToModality(instanceId, 'cds')
   end
end
